"""Raw images in, whatever they lie in: IDX, NumPy, folders of image files, downloads."""
