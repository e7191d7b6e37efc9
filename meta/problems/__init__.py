"""What meta-parameters are judged on."""
