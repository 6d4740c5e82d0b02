"""What a user can cause, said in words."""


class UserError(Exception):
    """Something the person at the keyboard can mend.

    The message says what was wrong, where, and what to do; the command line prints it without a traceback.
    """
