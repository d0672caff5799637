"""What everything on a screen is made of: lines with roles, glyphs, themes, charts, and the widget that paints them."""
