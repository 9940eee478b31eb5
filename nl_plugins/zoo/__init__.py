"""The model zoo: metafiles, their index, the tables of the READMEs."""
