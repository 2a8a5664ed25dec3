"""From LoRA files to images and grids: sampling, what a PNG tells, rows and columns, drawing."""
