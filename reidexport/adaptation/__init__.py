"""A checkpoint adapted to the cameras of a site, without a label, and a judgement whether that is needed."""
