using System.Text;
using Drover.Workflows;

namespace Drover.Orchestrator.Git;

/// <summary>Result of merging work onto a tip without touching any ref or file.</summary>
internal abstract record MergeOutcome
{
    /// <summary>The merged tree.</summary>
    public sealed record Clean(string Tree) : MergeOutcome;

    /// <summary>Both sides changed the same places.</summary>
    /// <param name="Tree">A tree whose files hold the conflict markers; it never lands.</param>
    /// <param name="Paths">The paths in conflict.</param>
    /// <param name="Hunks">Readable text for a prompt: messages and the marked places, bounded.</param>
    public sealed record Conflict(string Tree, IReadOnlyList<string> Paths, string Hunks) : MergeOutcome;

    /// <summary>The two have no common history.</summary>
    public sealed record Unrelated : MergeOutcome;
}

/// <summary>A worktree turned over to an agent to solve a conflict.</summary>
/// <param name="Work">The work commit in conflict.</param>
/// <param name="Tip">The target's commit it conflicts with.</param>
/// <param name="Scaffold">The commit that joins both and holds the markers; never a parent of what lands unless the agent built on it.</param>
/// <param name="Paths">The paths in conflict.</param>
internal sealed record ConflictTurn(string Work, string Tip, string Scaffold, IReadOnlyList<string> Paths);

/// <summary>Everything between a work commit and the target's ref, all of it without a checkout (G-01).</summary>
internal sealed class Landing(Repository repository, TimeProvider time)
{
    private const int MaxHunkLines = 400;

    private GitClient Git => repository.Git;

    /// <summary>The target's commit now.</summary>
    /// <exception cref="DroverException">NotFound: the branch is gone.</exception>
    public async Task<string> ResolveTargetAsync(string target, CancellationToken cancellationToken) =>
        await repository.ResolveAsync(target, cancellationToken).ConfigureAwait(false)
        ?? throw new DroverException(ErrorCode.NotFound, $"{target} does not exist in {repository.Root} any more; restore it or choose another target");

    /// <summary>Merges two commits as objects. 1 git process when clean.</summary>
    public async Task<MergeOutcome> MergeAsync(string tipOid, string workOid, CancellationToken cancellationToken)
    {
        string[] merge = ["merge-tree", "--write-tree", "-z", "--messages", Repository.CheckOid(tipOid), Repository.CheckOid(workOid)];
        var result = await Git.TryAsync(repository.Hermetic.Scope(), merge, default, cancellationToken).ConfigureAwait(false);
        var fields = result.Fields();
        // Exit 1 alone is no conflict: an unknown commit gives it too, without a tree.
        var hasTree = fields.Length > 0 && fields[0].Length == 40;
        if (result.ExitCode == 0 && hasTree)
            return new MergeOutcome.Clean(fields[0]);
        if (result.ExitCode == 1 && hasTree)
            return await ConflictAsync(fields, cancellationToken).ConfigureAwait(false);
        var common = await Git.TryAsync(repository.Hermetic.Scope(), ["merge-base", tipOid, workOid], default, cancellationToken).ConfigureAwait(false);
        return common.ExitCode == 1 && common.Output.Length == 0 ? new MergeOutcome.Unrelated() : throw GitClient.Failure(merge, result);
    }

    /// <summary>
    /// The commit that lands: parents (tip, work), the two trailers. Dates are the caller's, so that a repeat gives the same id.
    /// It is in no ref yet: record the id first, then advance.
    /// </summary>
    public async Task<string> BuildCommitAsync(string tree, string tipOid, string workOid, AttemptName name, string title, GitIdentity identity, DateTimeOffset date, CancellationToken cancellationToken)
    {
        var subject = WorkCommit.CleanMessage(title).Split('\n')[0];
        var message = $"{subject}\n\nDrover-Task: {name.Task}\nDrover-Attempt: {name.Attempt}\n";
        string[] arguments = ["commit-tree", Repository.CheckOid(tree), "-p", Repository.CheckOid(tipOid), "-p", Repository.CheckOid(workOid)];
        return (await Git.RunAsync(HermeticGit.As(repository.Hermetic.Scope(), identity, date), arguments, Encoding.UTF8.GetBytes(message), cancellationToken).ConfigureAwait(false)).Text;
    }

    /// <summary>
    /// Moves a target that nobody has checked out. <see cref="CheckoutSync.LandAsync"/> is the whole landing; this is its core.
    /// </summary>
    public async Task<RefMove> AdvanceAsync(string target, string newOid, string oldOid, TimeSpan patience, CancellationToken cancellationToken) =>
        await Refs.MoveAsync(repository, target, newOid, oldOid, patience, time, cancellationToken).ConfigureAwait(false);

    /// <summary>
    /// The commit by which an attempt landed, or null. Proof is that the intended commit is in the target's history, or a
    /// first-parent commit of the target since the base that has both trailers and the work as second parent (G-03): a
    /// trailer alone proves nothing, agents can write it.
    /// </summary>
    /// <returns>The landing commit's id.</returns>
    public async Task<string?> FindLandedAsync(string target, string? intendedOid, AttemptName name, string workOid, string baseOid, CancellationToken cancellationToken)
    {
        var found = await repository.ResolveAsync([target + "^{commit}", (intendedOid ?? baseOid) + "^{commit}"], cancellationToken).ConfigureAwait(false);
        var tip = found[0] ?? throw new DroverException(ErrorCode.NotFound, $"{target} does not exist in {repository.Root} any more; restore it or choose another target");
        // A commit that is not here cannot be in the target's history.
        if (intendedOid is not null && found[1] is not null && await repository.IsAncestorAsync(intendedOid, tip, cancellationToken).ConfigureAwait(false))
            return intendedOid;
        string[] log = ["log", "-z", "--first-parent", "--format=%H%n%P%n%B", tip, "--not", Repository.CheckOid(baseOid)];
        var result = await Git.RunAsync(repository.Hermetic.Scope(), log, cancellationToken).ConfigureAwait(false);
        foreach (var entry in result.Fields())
        {
            var lines = entry.Split('\n');
            if (lines.Length > 2 && lines[1].Split(' ') is [_, var second] && second == workOid && HasTrailers(lines, name))
                return lines[0];
        }
        return null;
    }

    /// <summary>
    /// Hands a conflict to the agent: its branch gets a commit that joins work and tip and holds the markers, its folder those
    /// files, its HEAD that branch. Pass the result to the next <see cref="WorkCommit.CreateAsync"/>. Safe to repeat at any time,
    /// also when the target has moved since: a turn nobody has worked on goes on to the new tip; one that an agent may have
    /// worked on is returned as it was given, nothing is touched, and its own <see cref="ConflictTurn.Tip"/> counts. A merge that is
    /// clean by now is given the same way, as a conflict without paths.
    /// </summary>
    /// <param name="worktree">The attempt's worktree, registered and present; everything in it is in <paramref name="workOid"/>.</param>
    /// <param name="workOid">The work commit.</param>
    /// <param name="tipOid">The target's commit now.</param>
    /// <param name="conflict">What merging the two gave.</param>
    /// <param name="identity">Author of the joining commit.</param>
    /// <param name="date">Its date, whole seconds; the same for every repeat.</param>
    /// <param name="cancellationToken">May leave the turn half given; repeating finishes it.</param>
    /// <exception cref="DroverException">Conflict: the branch is neither at the work nor at a turn of it.</exception>
    public async Task<ConflictTurn> BeginConflictTurnAsync(Worktree worktree, string workOid, string tipOid, MergeOutcome.Conflict conflict, GitIdentity identity, DateTimeOffset date, CancellationToken cancellationToken)
    {
        var name = worktree.Name;
        string[] arguments = ["commit-tree", Repository.CheckOid(conflict.Tree), "-p", Repository.CheckOid(workOid), "-p", Repository.CheckOid(tipOid)];
        var message = Encoding.UTF8.GetBytes(ScaffoldMessage(name) + "\n");
        var scaffold = (await Git.RunAsync(HermeticGit.As(repository.Hermetic.Scope(), identity, date), arguments, message, cancellationToken).ConfigureAwait(false)).Text;
        var turn = new ConflictTurn(workOid, tipOid, scaffold, conflict.Paths);
        await GitOrphans.WaitGoneAsync(worktree.Path, time, cancellationToken).ConfigureAwait(false);
        var branch = await repository.ResolveAsync(name.Branch, cancellationToken).ConfigureAwait(false);
        var half = HalfGiven(name);
        if (branch != workOid)
        {
            var (given, at) = branch == scaffold ? (turn, scaffold) : await GivenAsync(name, branch, workOid, tipOid, cancellationToken).ConfigureAwait(false);
            // Half given = no agent has started on it. Otherwise whatever differs from what was given is an agent's work.
            if (half is null && (at != given.Scaffold || await IsWorkedOnAsync(worktree, given.Scaffold, cancellationToken).ConfigureAwait(false)))
                return given;
            half ??= given.Scaffold;
        }
        var scope = await worktree.SeededAsync(repository, "turn", workOid, cancellationToken).ConfigureAwait(false);
        // What an earlier tip put into the folder must be in the index, or files only it had would stay as if the agent had made them.
        if (half is not null && half != scaffold && await repository.ResolveAsync(half, cancellationToken).ConfigureAwait(false) is not null)
            await Git.RunAsync(scope, ["read-tree", "--reset", "-u", half], cancellationToken).ConfigureAwait(false);
        if (half is not null && half != scaffold)
            Posix.CopyAtomic(scope.IndexFile!, worktree.SeedIndex(repository));
        Posix.WriteAtomic(HalfGivenFile(repository, name), Encoding.UTF8.GetBytes(scaffold));
        GitCrash.Point("turn.intent");
        // Every byte of the folder is in the work commit, so overwriting loses nothing; untracked and ignored files stay.
        await Git.RunAsync(scope, ["read-tree", "--reset", "-u", scaffold], cancellationToken).ConfigureAwait(false);
        GitCrash.Point("turn.files");
        if (branch != scaffold)
            await Refs.MustMoveAsync(repository, name.Branch, scaffold, branch, time, cancellationToken).ConfigureAwait(false);
        GitCrash.Point("turn.branch");
        Posix.CopyAtomic(scope.IndexFile!, worktree.SeedIndex(repository));
        File.Move(scope.IndexFile!, Path.Combine(worktree.GitDirectory, "index"), overwrite: true);
        // On another branch the agent would commit the solution there; what that HEAD held is a parent of the work or under the rescue ref.
        if (Checkouts.Head(worktree.GitDirectory).Branch != name.Branch)
            Posix.WriteAtomic(Path.Combine(worktree.GitDirectory, "HEAD"), Encoding.UTF8.GetBytes($"ref: {name.Branch}\n"));
        GitCrash.Point("turn.index");
        File.Delete(HalfGivenFile(repository, name));
        Posix.SyncFolder(repository.Hermetic.IndexDirectory);
        return turn;
    }

    private static string ScaffoldMessage(AttemptName name) => $"Conflicts to solve: {name.Trailer}";

    /// <summary>Written before the first file of a turn, removed when all of it is in place: the commit that is being put into the folder.</summary>
    internal static string HalfGivenFile(Repository repository, AttemptName name) => Path.Combine(repository.Hermetic.IndexDirectory, name.Key + ".giving");

    private string? HalfGiven(AttemptName name) =>
        File.Exists(HalfGivenFile(repository, name)) && File.ReadAllText(HalfGivenFile(repository, name)) is { Length: 40 } oid && oid.All(char.IsAsciiHexDigitLower) ? oid : null;

    // The turn the branch stands on, and its tip. An agent can write such a commit too: the tip it names must be the target's own, and
    // its tree the merge of both.
    private async Task<(ConflictTurn Given, string At)> GivenAsync(AttemptName name, string? branch, string workOid, string tipOid, CancellationToken cancellationToken)
    {
        if (branch is not null)
        {
            string[] log = ["log", "-z", "--first-parent", "--format=%H%n%T%n%P%n%B", branch, "--not", workOid, tipOid];
            var result = await Git.RunAsync(repository.Hermetic.Scope(), log, cancellationToken).ConfigureAwait(false);
            if (result.Fields() is [.., var first] && first.TrimEnd('\n').Split('\n') is [var oid, var tree, var parents, var subject] && subject == ScaffoldMessage(name)
                && parents.Split(' ') is [var work, var tip] && work == workOid && await repository.IsAncestorAsync(tip, tipOid, cancellationToken).ConfigureAwait(false)
                && await MergeAsync(tip, workOid, cancellationToken).ConfigureAwait(false) is var merged)
            {
                if (merged is MergeOutcome.Conflict conflict && conflict.Tree == tree)
                    return (new ConflictTurn(workOid, tip, oid, conflict.Paths), branch);
                if (merged is MergeOutcome.Clean clean && clean.Tree == tree)
                    return (new ConflictTurn(workOid, tip, oid, []), branch);
            }
        }
        throw new DroverException(ErrorCode.Conflict, $"{name.Branch} is not at the work commit {workOid}; commit the worktree first");
    }

    private async Task<bool> IsWorkedOnAsync(Worktree worktree, string scaffold, CancellationToken cancellationToken)
    {
        if (Checkouts.Head(worktree.GitDirectory).Branch != worktree.Name.Branch)
            return true;
        var scope = await worktree.SeededAsync(repository, "look", scaffold, cancellationToken).ConfigureAwait(false);
        var leftOut = await Staging.AddAllAsync(repository, scope, cancellationToken).ConfigureAwait(false);
        var tree = (await Git.RunAsync(scope, ["write-tree"], cancellationToken).ConfigureAwait(false)).Text;
        File.Delete(scope.IndexFile!);
        return (await repository.ResolveAsync([scaffold + "^{tree}"], cancellationToken).ConfigureAwait(false))[0] != tree;
    }

    private static bool HasTrailers(string[] lines, AttemptName name) =>
        lines.Contains($"Drover-Task: {name.Task}") && lines.Contains($"Drover-Attempt: {name.Attempt}");

    private async Task<MergeOutcome> ConflictAsync(string[] fields, CancellationToken cancellationToken)
    {
        // <tree> NUL (<mode> <oid> <stage> TAB <path> NUL)* NUL (<count> NUL path* <type> NUL <message> NUL)*
        var paths = new List<string>();
        var i = 1;
        for (; i < fields.Length && fields[i].Length > 0; i++)
        {
            var path = fields[i][(fields[i].IndexOf('\t', StringComparison.Ordinal) + 1)..];
            if (!paths.Contains(path))
                paths.Add(path);
        }
        var text = new StringBuilder();
        for (i++; i < fields.Length && int.TryParse(fields[i], out var count); i += count + 3)
        {
            if (i + count + 2 < fields.Length && !fields[i + count + 1].StartsWith("Auto-merging", StringComparison.Ordinal))
                text.Append(fields[i + count + 2].TrimEnd()).Append('\n');
        }
        var shown = paths.Where(p => !p.Contains('\n', StringComparison.Ordinal)).Take(20).ToList();
        var blobs = await Preflight.BlobsAsync(repository, [.. shown.Select(p => $"{fields[0]}:{p}")], cancellationToken).ConfigureAwait(false);
        var budget = MaxHunkLines;
        for (var k = 0; k < shown.Count; k++)
            budget = AppendHunks(text, shown[k], blobs[k], budget);
        return new MergeOutcome.Conflict(fields[0], paths, text.ToString());
    }

    private static int AppendHunks(StringBuilder text, string path, byte[]? blob, int budget)
    {
        if (blob is null || blob.AsSpan(0, Math.Min(blob.Length, 8000)).Contains((byte)0) || budget <= 0)
            return budget;
        var inside = false;
        var number = 0;
        var named = false;
        foreach (var line in Encoding.UTF8.GetString(blob).Split('\n'))
        {
            number++;
            inside = inside || line.StartsWith("<<<<<<< ", StringComparison.Ordinal);
            if (!inside)
                continue;
            if (budget-- <= 0)
            {
                text.Append("… (more in the file)\n");
                return budget;
            }
            if (!named)
                text.Append("\n--- ").Append(path).Append(" (from line ").Append(number).Append(")\n");
            named = true;
            text.Append(line.Length > 500 ? line[..500] : line.TrimEnd('\r')).Append('\n');
            inside = !line.StartsWith(">>>>>>> ", StringComparison.Ordinal);
        }
        return budget;
    }
}
