using Drover.Workflows;

namespace Drover.Orchestrator.Git;

/// <summary>What is wrong with a worktree that can still be committed. Anything but <see cref="None"/> is tampering.</summary>
internal enum WorktreeFault
{
    /// <summary>Folder, <c>.git</c> file and registration belong together.</summary>
    None,
    /// <summary>The <c>.git</c> file is gone or names another repository.</summary>
    LinkNotOurs,
    /// <summary>The registration in the repository is gone or names another folder; commits only its HEAD held may be lost, the files are not.</summary>
    RegistrationGone,
}

/// <summary>Why there is nothing to commit.</summary>
internal enum WorktreeLoss
{
    /// <summary>The folder is gone, or something else stands in its place (a file, a link).</summary>
    Folder,
    /// <summary>The folder was never handed over: its making was cut off.</summary>
    Unfinished,
}

/// <summary>What <see cref="Worktrees.OpenAsync"/> found.</summary>
internal abstract record WorktreeState
{
    /// <summary>The folder with whatever is in it, on whatever HEAD.</summary>
    public sealed record Open(Worktree Worktree, WorktreeFault Fault) : WorktreeState;

    /// <summary>There is no folder to commit. Commits the agent made are still on its branch or in the registration.</summary>
    /// <param name="Loss">Why.</param>
    /// <param name="What">One line for a person.</param>
    public sealed record Missing(WorktreeLoss Loss, string What) : WorktreeState;

    /// <summary>The worktree, for a caller that cannot go on without it.</summary>
    /// <exception cref="DroverException">Conflict: it is missing.</exception>
    public Worktree Require() => this switch
    {
        Open open => open.Worktree,
        Missing missing => throw new DroverException(ErrorCode.Conflict, missing.What),
        _ => throw new InvalidOperationException("an unknown worktree state"),
    };
}
