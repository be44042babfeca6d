"""Traffic: what is said and asked, when it arrives, who sends it, and what came of it."""
