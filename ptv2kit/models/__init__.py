"""The frozen backbone, the prompt that is put into it, and the head."""
