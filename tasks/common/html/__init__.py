"""Pages that hold all they show and run nothing: markup, the frame and style, figures."""
