# The server: it keeps the catalog, and answers as any agent does.
node_name = "oak"
server = true
bootstrap_expect = 1
