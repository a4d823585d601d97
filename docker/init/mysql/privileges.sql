-- What recovery of atomic units needs: to see the transactions that are prepared on the server.
GRANT XA_RECOVER_ADMIN ON *.* TO 'jobu'@'%';
