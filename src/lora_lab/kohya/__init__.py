"""Settings of kohya-ss/sd-scripts, in and out."""
