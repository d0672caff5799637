"""The folders of a data set: which picture has which caption, and what a first attempt read."""
