"""Where shots run: in this process, in processes of this machine, on a dask cluster."""
