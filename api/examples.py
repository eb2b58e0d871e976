"""Examples of a submit, for the OpenAPI document."""

from fastapi.openapi.models import Example

SUBMIT_EXAMPLES: dict[str, Example] = {
    "everything by default": {"summary": "XSAM on the bundled digits", "value": {}},
    "two workers": {
        "summary": "XSAM with DDP on two workers, noisy labels",
        "value": {
            "name": "xsam-noisy",
            "model": {"name": "small_cnn"},
            "dataset": {"name": "digits", "label_noise": 0.4},
            "optimizer": {"variant": "xsam", "rho": 0.1, "base": {"name": "sgd", "lr": 0.05, "momentum": 0.9}},
            "epochs": 30,
            "batch_size": 64,
            "seed": 1,
            "resources": {"num_workers": 2},
            "labels": {"project": "label-noise"},
        },
    },
    "the paper's CIFAR-100 run": {
        "summary": "ResNet-18 on a GPU with the authors' settings",
        "value": {
            "model": {"name": "resnet18"},
            "dataset": {"name": "cifar100", "augment": ["crop", "flip", "cutout"]},
            "optimizer": {
                "variant": "xsam",
                "rho": 0.15,
                "base": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.001},
            },
            "schedule": {"name": "cosine"},
            "epochs": 200,
            "batch_size": 125,
            "resources": {"gpus_per_worker": 1},
        },
    },
}

STUDY_EXAMPLES: dict[str, Example] = {
    "preset": {
        "summary": "Search rho on the bundled digits",
        "value": {"preset": "rho", "base": {"epochs": 10}},
    },
    "rho and k with control arms": {
        "summary": "The paper's question, with SGD and SAM on the same compute and a paired test",
        "value": {
            "name": "rho-k on noisy digits",
            "base": {"dataset": {"name": "digits", "label_noise": 0.4}, "epochs": 30},
            "space": {
                "optimizer.rho": {"type": "log_uniform", "low": 0.01, "high": 0.5},
                "optimizer.rho_max": {"type": "ratio", "of": "optimizer.rho", "factor": 2.0},
                "optimizer.ascent_steps": {"type": "choice", "values": [1, 2, 3]},
            },
            "sampler": {"name": "tpe"},
            "early_stopping": {"name": "asha"},
            "num_trials": 30,
            "concurrency": 4,
            "control": True,
        },
    },
}
