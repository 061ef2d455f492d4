"""A listener as people have it: knows nothing of this project. Prints [channel, payload]."""

import json
import os
import sys

import psycopg
from psycopg import sql

with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
    for channel in sys.argv[1:]:
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
    print(json.dumps("listening"), flush=True)
    for notify in connection.notifies():
        print(json.dumps([notify.channel, notify.payload]), flush=True)
