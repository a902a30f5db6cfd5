"""One page to mail: what `luf run` or `luf compare` found, in a file that needs no other."""
