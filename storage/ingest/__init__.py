"""Reading raw images from IDX and NumPy files, folders of image files, other libraries, and downloads."""
