"""What a user hands in, on its way into the program: files, the text in them, tables of declared types.

Lives here: the one reader of input files (`file`), their decoding (`decode`, `archive`), tables as declared
types (`checked`), and the one rule for text that is not ours (`text`). Whatever is wrong becomes one
sentence: file, key, rule, value. Knows nothing of what the inputs mean, and imports nothing from the other
rooms.
"""
