"""Files to pictures: layouts, splits, safe decoding, synthetic textures and defects, inspection, audit."""
