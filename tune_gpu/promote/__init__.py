"""Turn a confirmed winner into a deployment that a person has reviewed and can roll back."""
