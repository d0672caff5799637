"""The log: a pane over a file of any size, followed, held, searched, filtered, copied."""
