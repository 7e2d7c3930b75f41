"""Scripts that made the shipped priors, with their generators; anyone can rerun them.

A prior of your own, from the images of a Zarr store ``(n, y, x)``::

    import torch
    import xarray as xr

    from invdiff.grid import Grid
    from invdiff.io import training_fields
    from invdiff.priors import EDMNetwork, NetworkPrior, TrainingRecipe, UNetConfig, save_prior
    from invdiff.priors.train import train
    from invdiff.schedule import VE

    batches = training_fields("train.zarr", "image", size=64, batch_size=16)
    network = EDMNetwork.untrained(UNetConfig(channels=1), sigma_data=0.3)
    network = train(network, batches, TrainingRecipe(steps=4000), checkpoint="run.safetensors")

    images = torch.from_numpy(xr.open_zarr("validation.zarr")["image"].values)
    prior = NetworkPrior.fitted(
        network,
        images[::2].split(4),
        Grid(("y", "x"), tuple(images.shape[1:]), images.dtype),
        validation=images[1::2].split(4),
        schedule=VE(ratio_min=0.005, ratio_max=8.0),
        card={"name": "mine", "data": "...", "licence": "...", "recipe": "...", "seed": 0},
    )
    save_prior(prior, "mine")  # back with invdiff.load_prior("mine", grid=operator.domain)

``sigma_data`` is the standard deviation of one channel of the images, of order 0.1 to 1: give
``training_fields`` and ``fitted`` the same ``scale`` and ``offset`` where the images have other
units. Complex images have two channels. The noise levels of the schedule reach from below the
smallest detail to several times the standard deviation of the images, in their units.
"""

__all__: list[str] = []
