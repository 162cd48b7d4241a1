"""What data sets hold: files and folders into rows, and rows of every shape into ours."""
