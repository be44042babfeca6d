"""Traffic: utterances and prompts, arrival times, clients, and a summary of the results."""
