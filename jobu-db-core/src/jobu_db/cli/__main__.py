"""`python -m jobu_db.cli`, where no `jobu-db` is on the path."""

from jobu_db.cli import main

main()
