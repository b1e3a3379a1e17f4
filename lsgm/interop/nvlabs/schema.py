"""The arguments of the authors' code that a recipe says too, each of the type that their parser gives."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OfficialArguments"]


@dataclass(frozen=True)
class OfficialArguments:
    """Arguments by name. None stands for one that older files, or files of one stage alone, lack.

    Fractions may be written as whole numbers.
    """

    # The images.
    dataset: str | None = None
    num_x_bits: int | None = None
    decoder_dist: str | None = None
    seed: int | None = None
    # The VAE.
    arch_instance: str | None = None
    use_se: bool | None = None
    num_nf: int | None = None
    log_sig_q_scale: float | None = None
    num_latent_scales: int | None = None
    num_groups_per_scale: int | None = None
    num_latent_per_group: int | None = None
    num_channels_enc: int | None = None
    num_channels_dec: int | None = None
    channel_mult: tuple[int, ...] | None = None
    num_preprocess_blocks: int | None = None
    num_preprocess_cells: int | None = None
    num_postprocess_blocks: int | None = None
    num_postprocess_cells: int | None = None
    num_cell_per_cond_enc: int | None = None
    num_cell_per_cond_dec: int | None = None
    progressive_input_vae: str | None = None
    progressive_output_vae: str | None = None
    # The score prior.
    dae_arch: str | None = None
    num_channels_dae: int | None = None
    num_scales_dae: int | None = None
    num_cell_per_scale_dae: int | None = None
    embedding_dim: int | None = None
    embedding_type: str | None = None
    embedding_scale: float | None = None
    fir: bool | None = None
    progressive: str | None = None
    progressive_input: str | None = None
    progressive_combine: str | None = None
    dropout: float | None = None
    mixed_prediction: bool | None = None
    mixing_logit_init: float | None = None
    drop_inactive_var: bool | None = None
    # Its diffusion and objective.
    sde_type: str | None = None
    beta_start: float | None = None
    beta_end: float | None = None
    sigma2_0: float | None = None
    sigma2_min: float | None = None
    sigma2_max: float | None = None
    time_eps: float | None = None
    iw_sample_p: str | None = None
    iw_sample_q: str | None = None
    train_vae: bool | None = None
    disjoint_training: bool | None = None
    update_q_ema: bool | None = None
    # The training.
    epochs: int | None = None
    warmup_epochs: int | None = None
    batch_size: int | None = None
    num_proc_node: int | None = None
    num_process_per_node: int | None = None
    grad_clip_max_norm: float | None = None
    autocast_train: bool | None = None
    learning_rate_vae: float | None = None
    learning_rate_min_vae: float | None = None
    learning_rate_dae: float | None = None
    learning_rate_min_dae: float | None = None
    weight_decay: float | None = None
    ema_decay: float | None = None
    weight_decay_norm_vae: float | None = None
    weight_decay_norm_dae: float | None = None
    custom_conv_dae: bool | None = None
    cont_kl_anneal: bool | None = None
    kl_anneal_portion_vada: float | None = None
    kl_const_portion_vada: float | None = None
    kl_const_coeff_vada: float | None = None
    kl_max_coeff_vada: float | None = None
    kl_balance_vada: bool | None = None
    weight_decay_norm: float | None = None
    weight_decay_norm_init: float | None = None
    weight_decay_norm_anneal: bool | None = None
    kl_anneal_portion: float | None = None
    kl_const_portion: float | None = None
    kl_const_coeff: float | None = None
    kl_max_coeff: float | None = None
