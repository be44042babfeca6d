"""The kind `external`: a service that runs already and is neither started nor stopped."""
