"""From a confirmed winner to a deployment that a person has reviewed and can take back."""
