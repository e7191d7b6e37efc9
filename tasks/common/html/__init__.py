"""Pages without scripts and links to outside: markup, the frame and style, figures."""
