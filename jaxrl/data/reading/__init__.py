"""Files and folders of other people into rows in our columns."""
