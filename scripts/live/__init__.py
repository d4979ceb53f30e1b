"""A live window on a camera, in the browser."""
