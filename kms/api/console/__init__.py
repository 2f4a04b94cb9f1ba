"""The console: pages on which a person looks after keys and clients in a browser.

It is a dialect like the others. Each page carries out operations of the table as the person who is logged in, and has
no rights of its own; what a page hides is hidden for convenience, and the operation decides.
"""
