"""`das inspect`: a dataset's folder as one static page to read, search and listen to."""
