using System.Text.Json;
using System.Text.Json.Serialization;
using Drover.Workflows;

namespace Drover.Orchestrator.Git;

/// <summary>The shared control files and refs as they were before an agent ran.</summary>
/// <param name="Files">Content by path relative to the common directory (or <c>worktree:.git</c>); null = there was none.</param>
/// <param name="Links">Files that are symbolic links: where they point.</param>
/// <param name="Executable">Files that could be executed.</param>
/// <param name="Refs">All refs outside Drover's own.</param>
internal sealed record ControlCapture(
    Dictionary<string, byte[]> Files, Dictionary<string, string> Links, List<string> Executable, Dictionary<string, string> Refs);

/// <summary>One control file or ref that changed while an agent ran.</summary>
/// <param name="Name">Relative file name or full ref name.</param>
/// <param name="What">One line for a person.</param>
/// <param name="IsRef">True for a ref.</param>
internal sealed record ControlDifference(string Name, string What, bool IsRef);

[JsonSerializable(typeof(ControlCapture))]
internal sealed partial class ControlJson : JsonSerializerContext;

/// <summary>
/// Tells whether an agent changed what all worktrees share (G-18). The rule, because the user and other attempts work at
/// the same time:
/// <list type="bullet">
/// <item>Files: any change of <c>config</c>, <c>config.worktree</c>, <c>hooks/**</c>, <c>info/**</c> (but the caches <c>info/refs</c> and
/// <c>info/packs</c>), <c>objects/info/alternates</c>, the <c>gitdir</c>, <c>commondir</c> and <c>config.worktree</c> of a worktree registered before and
/// now, and the attempt's own <c>.git</c> file. Registrations that came or went are not a change, except this attempt's. In
/// <c>config</c>, keys that only describe a branch and keys of <c>drover/*</c> branches do not count.</item>
/// <item>Refs: new refs are free, except <c>refs/replace/*</c>. <c>refs/drover/**</c>, <c>refs/heads/drover/**</c>, <c>refs/remotes/**</c> and
/// <c>refs/stash</c> are free. A branch that moved forward is free, unless this worktree's HEAD log shows that the agent committed
/// on it here (a forward <c>update-ref</c> of an agent cannot be told from a push or a commit of the user). A branch that went back, sideways or away counts, unless a
/// user's checkout has it checked out and its own HEAD log shows that move (<c>commit --amend</c>, <c>reset</c>, <c>rebase</c>), or the branch was
/// deleted and every commit of it is still in another ref. A tag that moved or went counts.</item>
/// </list>
/// </summary>
internal sealed class ControlFiles(Repository repository)
{
    private const string Link = "worktree:.git";
    private const string Large = "(large file, ";
    private const int MaxFileBytes = 4 << 20;

    /// <summary>
    /// Reads everything, or gives back what an earlier call for the same attempt stored: after a crash the state before the
    /// agent counts, not the present one. <see cref="Forget"/> ends that.
    /// </summary>
    public async Task<ControlCapture> CaptureAsync(Worktree worktree, CancellationToken cancellationToken)
    {
        var stored = StoreOf(worktree.Name);
        if (File.Exists(stored))
            return JsonSerializer.Deserialize(await File.ReadAllBytesAsync(stored, cancellationToken).ConfigureAwait(false), ControlJson.Default.ControlCapture)
                ?? throw new DroverException(ErrorCode.External, $"{stored} is empty; remove it and resume");
        var capture = await ReadAsync(worktree, cancellationToken).ConfigureAwait(false);
        Posix.CreatePrivate(Path.GetDirectoryName(stored)!);
        Posix.WriteAtomic(stored, JsonSerializer.SerializeToUtf8Bytes(capture, ControlJson.Default.ControlCapture));
        return capture;
    }

    /// <summary>Drops the stored capture; call when the attempt's work is committed and compared.</summary>
    public void Forget(AttemptName name)
    {
        // An attempt that never came to an agent has no capture and perhaps no folder for one; File.Delete forgives only the former.
        if (File.Exists(StoreOf(name)))
            File.Delete(StoreOf(name));
    }

    /// <summary>What changed since the capture, by the rule of this class. 1 git process when nothing did.</summary>
    public async Task<IReadOnlyList<ControlDifference>> CompareAsync(Worktree worktree, ControlCapture before, CancellationToken cancellationToken)
    {
        var now = await ReadAsync(worktree, cancellationToken).ConfigureAwait(false);
        var result = new List<ControlDifference>();
        foreach (var name in before.Files.Keys.Union(before.Links.Keys).Union(now.Files.Keys).Union(now.Links.Keys).Order(StringComparer.Ordinal))
        {
            var had = before.Files.ContainsKey(name) || before.Links.ContainsKey(name);
            var has = now.Files.ContainsKey(name) || now.Links.ContainsKey(name);
            if (Same(before, now, name) || (had != has && IsForeignRegistration(worktree, name)))
                continue;
            if (name == "config" && had && has && await IsHarmlessAsync(before.Files[name], now.Files.GetValueOrDefault(name), cancellationToken).ConfigureAwait(false))
                continue;
            result.Add(new ControlDifference(name, $"{name} was {(had ? has ? "changed" : "removed" : "added")}", false));
        }
        foreach (var (name, oid) in before.Refs)
        {
            if (now.Refs.GetValueOrDefault(name) != oid && await JudgeAsync(worktree, name, oid, now.Refs.GetValueOrDefault(name), cancellationToken).ConfigureAwait(false) is { } difference)
                result.Add(difference);
        }
        foreach (var name in now.Refs.Keys.Where(n => n.StartsWith("refs/replace/", StringComparison.Ordinal) && !before.Refs.ContainsKey(n)))
            result.Add(new ControlDifference(name, $"{name} was added; it makes git show other objects than are there", true));
        return result;
    }

    /// <summary>
    /// Puts back what <see cref="CompareAsync"/> named. Changed files are kept under <c>.drover/tampered/</c> first; refs go back by
    /// compare-and-swap from the value they have now, which stays under <c>refs/drover/tampered/</c>.
    /// </summary>
    /// <returns>Names that could not be put back: they changed again, or other work stands on them.</returns>
    public async Task<IReadOnlyList<string>> RestoreAsync(Worktree worktree, ControlCapture before, IReadOnlyList<ControlDifference> differences, TimeProvider time, CancellationToken cancellationToken)
    {
        var missed = new List<string>();
        foreach (var difference in differences)
        {
            if (!difference.IsRef)
                RestoreFile(worktree, before, difference.Name);
            else if (!await RestoreRefAsync(worktree, before, difference.Name, time, cancellationToken).ConfigureAwait(false))
                missed.Add(difference.Name);
        }
        return missed;
    }

    private string StoreOf(AttemptName name) => Path.Combine(repository.StateDirectory, "control", name.Key + ".json");

    private string PathOf(Worktree worktree, string name) => name == Link ? Path.Combine(worktree.Path, ".git") : Path.Combine(repository.CommonDirectory, name);

    private async Task<ControlCapture> ReadAsync(Worktree worktree, CancellationToken cancellationToken)
    {
        var capture = new ControlCapture([], [], [], []);
        foreach (var name in Names(worktree))
        {
            var path = PathOf(worktree, name);
            var info = new FileInfo(path);
            if (info.LinkTarget is { } target)
                capture.Links[name] = target;
            else if (info.Exists && info.Length <= MaxFileBytes)
                capture.Files[name] = await File.ReadAllBytesAsync(path, cancellationToken).ConfigureAwait(false);
            else if (info.Exists)
                capture.Links[name] = $"{Large}{info.Length} bytes, {info.LastWriteTimeUtc.Ticks})";
            if (info.LinkTarget is null && Posix.IsExecutable(path))
                capture.Executable.Add(name);
        }
        var refs = await repository.Git.RunAsync(repository.Real, ["for-each-ref", "--format=%(objectname) %(refname)"], cancellationToken).ConfigureAwait(false);
        foreach (var line in refs.Text.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            var name = line[41..];
            if (!IsFree(name))
                capture.Refs[name] = line[..40];
        }
        return capture;
    }

    private static bool IsFree(string name) => name == "refs/stash" || ((string[])["refs/drover/", "refs/heads/drover/", "refs/remotes/", "refs/bisect/"])
        .Any(p => name.StartsWith(p, StringComparison.Ordinal));

    private IEnumerable<string> Names(Worktree worktree)
    {
        var common = repository.CommonDirectory;
        foreach (var name in (string[])["config", "config.worktree", "objects/info/alternates"])
            yield return name;
        foreach (var folder in (string[])["hooks", "info"])
        {
            if (!Directory.Exists(Path.Combine(common, folder)))
                continue;
            foreach (var file in Directory.EnumerateFiles(Path.Combine(common, folder), "*", new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = 0 }))
            {
                var name = Path.GetRelativePath(common, file);
                if (name is not "info/refs" and not "info/packs")
                    yield return name;
            }
        }
        if (Directory.Exists(Path.Combine(common, "worktrees")))
        {
            foreach (var directory in Directory.EnumerateDirectories(Path.Combine(common, "worktrees")))
            {
                foreach (var file in (string[])["gitdir", "commondir", "config.worktree"])
                    yield return Path.Combine("worktrees", Path.GetFileName(directory), file);
            }
        }
        yield return Link;
    }

    private static bool IsForeignRegistration(Worktree worktree, string name) =>
        name.StartsWith("worktrees/", StringComparison.Ordinal) && name.Split('/')[1] != Path.GetFileName(worktree.GitDirectory);

    private static bool Same(ControlCapture before, ControlCapture now, string name) =>
        before.Links.GetValueOrDefault(name) == now.Links.GetValueOrDefault(name)
        && before.Files.TryGetValue(name, out var a) == now.Files.TryGetValue(name, out var b)
        && (a is null || a.AsSpan().SequenceEqual(b))
        && before.Executable.Contains(name) == now.Executable.Contains(name);

    // `git push -u` of an agent's own branch and editors' notes on branches are everyday things that name no program and no address of others.
    private async Task<bool> IsHarmlessAsync(byte[] before, byte[]? now, CancellationToken cancellationToken)
    {
        if (now is null)
            return false;
        var (one, two) = (await KeysAsync(before, cancellationToken).ConfigureAwait(false), await KeysAsync(now, cancellationToken).ConfigureAwait(false));
        return one is not null && two is not null && one.SequenceEqual(two);
    }

    private async Task<List<string>?> KeysAsync(byte[] config, CancellationToken cancellationToken)
    {
        var scope = new GitScope { Directory = repository.StateDirectory };
        var list = await repository.Git.TryAsync(scope, ["config", "--file", "-", "--no-includes", "--list", "-z"], config, cancellationToken).ConfigureAwait(false);
        return list.ExitCode != 0 ? null : [.. list.Fields().Where(f => !IsNote(f.Split('\n')[0])).Order(StringComparer.Ordinal)];

        static bool IsNote(string key) => key.StartsWith("branch.drover/", StringComparison.Ordinal)
            || (key.StartsWith("branch.", StringComparison.Ordinal) && ((string[])[".description", ".vscode-merge-base", ".gh-merge-base"]).Any(e => key.EndsWith(e, StringComparison.Ordinal)));
    }

    private async Task<ControlDifference?> JudgeAsync(Worktree worktree, string name, string was, string? now, CancellationToken cancellationToken)
    {
        if (!name.StartsWith("refs/heads/", StringComparison.Ordinal))
            return new ControlDifference(name, $"{name} was {(now is null ? "removed" : "moved")}; it was {was}", true);
        if (now is null)
        {
            var kept = await repository.Git.RunAsync(repository.Real, ["for-each-ref", "--count=1", "--contains", was, "refs/heads", "refs/tags", "refs/remotes"], cancellationToken).ConfigureAwait(false);
            return kept.Output.Length > 0 ? null : new ControlDifference(name, $"{name} was deleted; it was {was}", true);
        }
        if (await repository.IsAncestorAsync(was, now, cancellationToken).ConfigureAwait(false))
            return MadeHere(worktree, name).Count == 0 ? null : new ControlDifference(name, $"{name} got commits made in {worktree.Path}", true);
        if (IsUsersOwnMove(name, was, now))
            return null;
        return new ControlDifference(name, $"{name} was moved from {was} to {now}, which does not contain it", true);
    }

    // A linked worktree's git writes a log entry for its own HEAD only. An entry in the log of the checkout that has the branch
    // means the move was made there.
    private bool IsUsersOwnMove(string name, string was, string now)
    {
        foreach (var checkout in Checkouts.Of(repository, name))
        {
            var lines = Checkouts.HeadLog(checkout.GitDirectory).ToList();
            var from = lines.FindLastIndex(l => l.StartsWith(was, StringComparison.Ordinal));
            if (from >= 0 && lines.Skip(from).Any(l => Checkouts.NewOid(l) == now))
                return true;
        }
        return false;
    }

    // Commits that were put on a branch from inside the attempt's worktree: the same line is in both logs.
    private HashSet<string> MadeHere(Worktree worktree, string name) =>
        [.. Checkouts.HeadLog(worktree.GitDirectory).Intersect(Checkouts.RefLog(repository, name)).Select(Checkouts.NewOid).OfType<string>()];

    private void RestoreFile(Worktree worktree, ControlCapture before, string name)
    {
        var path = PathOf(worktree, name);
        if (Posix.Exists(path))
        {
            var kept = Path.Combine(repository.StateDirectory, "tampered", $"{worktree.Name.Key}-{Guid.NewGuid():N}");
            Posix.CreatePrivate(kept);
            if (Directory.Exists(path) && new DirectoryInfo(path).LinkTarget is null)
                Directory.Move(path, Path.Combine(kept, Path.GetFileName(path)));
            else if (new FileInfo(path).LinkTarget is not null)
                File.Move(path, Path.Combine(kept, Path.GetFileName(path)));
            else
                File.Copy(path, Path.Combine(kept, Path.GetFileName(path)));
        }
        // An attempt that removed its own registration or folder: its files, if any, can be committed without; there is no folder to write to.
        if (!Directory.Exists(Path.GetDirectoryName(path)) && (name == Link || name.StartsWith("worktrees/", StringComparison.Ordinal)))
            return;
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        if (before.Files.TryGetValue(name, out var content))
        {
            Posix.WriteAtomic(path, content);
            Posix.SetExecutable(path, before.Executable.Contains(name));
            return;
        }
        File.Delete(path);
        // Of a large file only its size and time are known; the changed one stays under .drover/tampered.
        if (before.Links.TryGetValue(name, out var target) && !target.StartsWith(Large, StringComparison.Ordinal))
            File.CreateSymbolicLink(path, target);
    }

    private async Task<bool> RestoreRefAsync(Worktree worktree, ControlCapture before, string name, TimeProvider time, CancellationToken cancellationToken)
    {
        var now = (await repository.ResolveAsync([name], cancellationToken).ConfigureAwait(false))[0];
        if (now is not null)
        {
            var kept = $"refs/drover/tampered/{worktree.Name.Task}/{worktree.Name.Attempt}/{now}";
            await Refs.MoveAsync(repository, kept, now, null, Refs.DefaultPatience, time, cancellationToken).ConfigureAwait(false);
        }
        if (now is not null && before.Refs.GetValueOrDefault(name) is { } was && await repository.IsAncestorAsync(was, now, cancellationToken).ConfigureAwait(false))
        {
            // Going back must not take a landing or a commit of the user with it.
            var added = await repository.Git.RunAsync(repository.Real, ["rev-list", "--first-parent", $"{was}..{now}"], cancellationToken).ConfigureAwait(false);
            if (!MadeHere(worktree, name).IsSupersetOf(added.Text.Split('\n')))
                return false;
        }
        var move = await Refs.MoveAsync(repository, name, before.Refs.GetValueOrDefault(name), now, Refs.DefaultPatience, time, cancellationToken).ConfigureAwait(false);
        return move == RefMove.Moved;
    }
}
