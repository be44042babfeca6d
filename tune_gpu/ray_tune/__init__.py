"""The adapter to Ray and Ray Tune; with trainables/ and experiment/ the only packages that import Ray."""
