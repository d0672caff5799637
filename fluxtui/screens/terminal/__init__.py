"""Beyond Textual: the terminal's driver, the painter that sends few bytes, real pictures, the clipboard."""
