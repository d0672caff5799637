"""What is laid over a screen: questions, choices, one line to type in, the palette."""
