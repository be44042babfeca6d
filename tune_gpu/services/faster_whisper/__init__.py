"""faster_whisper."""
