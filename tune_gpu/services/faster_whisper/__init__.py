"""faster-whisper as a service: server, settings, memory."""
