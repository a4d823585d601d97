from jobu_db.testing.conformance import suite

globals().update(suite())
