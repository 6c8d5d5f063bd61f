using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.CodingAgents;
using Drover.Orchestrator.Git;
using Drover.Workflows;
using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Runs;

/// <summary>What a killed orchestrator left behind: processes, worktrees of ended attempts.</summary>
internal static class Leftovers
{
    /// <summary>Ends the process trees recorded for a dead executor, at once. Found by identity and run token, never by number.</summary>
    public static async Task EndProcessesOfAsync(RunServices services, string executorId, CancellationToken cancellationToken)
    {
        IReadOnlyList<ProcessRow> rows = await services.Client.ReadAsync(db => Board.LiveProcesses(db, services.Project), cancellationToken).ConfigureAwait(false);
        foreach (ProcessRow row in rows.Where(r => r.ExecutorId == executorId))
            await EndAsync(services, row, cancellationToken).ConfigureAwait(false);
    }

    public static async Task EndAsync(RunServices services, ProcessRow row, CancellationToken cancellationToken)
    {
        ProcessIdentity here = ProcessIdentity.Current;
        if (row.BootId == here.BootId && row.PidNamespace == here.PidNamespace)
        {
            IReadOnlyList<ProcessIdentity> left = await ProcessSweep.KillByTokenAsync(row.Token, services.Time, cancellationToken).ConfigureAwait(false);
            if (left.Count > 0)
                throw new DroverException(ErrorCode.Conflict, $"process {left[0].Pid} of {row.Task} cannot be ended: end it by hand, then `drover resume`");
        }
        await services.Client.TransactAsync(tx =>
        {
            Board.EndProcess(tx.Session, services.Project, row.Token, row.Kind);
            return true;
        }, cancellationToken).ConfigureAwait(false);
        string tmp = services.State("tmp", row.Token);
        if (Directory.Exists(tmp))
            Posix.Delete(tmp);
    }

    /// <summary>Removes temporary folders of turns that are over. Called when nothing of this project runs yet.</summary>
    public static async Task RemoveTemporaryFoldersAsync(RunServices services, CancellationToken cancellationToken)
    {
        string top = services.State("tmp", "");
        if (!Directory.Exists(top))
            return;
        HashSet<string> live = [.. (await services.Client.ReadAsync(db => Board.LiveProcesses(db, services.Project), cancellationToken).ConfigureAwait(false)).Select(r => r.Token)];
        foreach (string folder in Directory.GetDirectories(top).Where(f => !live.Contains(Path.GetFileName(f))))
            GateDesk.Discard(folder);
    }

    /// <summary>Removes worktrees whose attempt has ended; their bytes go under a ref first. Returns how many, and what was left and why.</summary>
    public static async Task<(int Removed, IReadOnlyList<string> Left)> RemoveEndedWorktreesAsync(RunServices services, CancellationToken cancellationToken)
    {
        int removed = 0;
        List<string> left = [];
        foreach (AttemptName name in services.Worktrees.List())
        {
            bool ended = await services.Client.ReadAsync(db => IsEnded(db, services.Project, name), cancellationToken).ConfigureAwait(false);
            if (!ended)
                continue;
            try
            {
                await services.Worktrees.RemoveAsync(name, cancellationToken).ConfigureAwait(false);
                removed++;
            }
            catch (Exception e) when (e is DroverException or IOException or UnauthorizedAccessException)
            {
                // Somebody works in it, or owns a file of it: no reason not to start.
                left.Add(RunFlow.OneLine($"left a worktree: {e.Message}"));
            }
        }
        return (removed, left);
    }

    // An attempt that is unknown here belongs to somebody else, or to a database that was replaced: left alone.
    private static bool IsEnded(SqlSession db, string project, AttemptName name) =>
        Board.FindAttempt(db, project, name.Task, name.Attempt) is { State: "ended" };
}
