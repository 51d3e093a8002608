"""The conductor behind `piolet run`: the only place where capabilities meet."""
