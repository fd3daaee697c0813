"""From image files and arrays to the pixels that an artifact takes, bit-equal to Pillow."""
