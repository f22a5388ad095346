"""The numbers that go with the tiny random Whisper of `das_lib.testing`."""

END, START, ENGLISH, GERMAN, TASK, _, NO_TIMESTAMPS = range(256, 263)
FRAMES, WIDTH, MAX_TOKENS, MEL_BINS = 50, 32, 64, 20
