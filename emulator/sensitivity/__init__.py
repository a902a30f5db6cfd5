"""How far a comparison hangs on costs of which only the order of magnitude is known: `luf compare
--sensitivity`, a tornado.
"""
