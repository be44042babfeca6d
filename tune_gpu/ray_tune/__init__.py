"""The adapter to Ray and Ray Tune. Besides trainables/ and experiment/, only this package imports Ray."""
