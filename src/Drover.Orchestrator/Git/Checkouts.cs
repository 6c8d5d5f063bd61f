namespace Drover.Orchestrator.Git;

/// <summary>A worktree of the repository as its files describe it.</summary>
/// <param name="Path">The folder.</param>
/// <param name="GitDirectory">Its own git directory (index, HEAD).</param>
/// <param name="Branch">Full branch name; null when detached.</param>
/// <param name="Operation">An operation the user has not finished there (<c>merge</c>, <c>rebase</c> …), or null.</param>
/// <param name="OperationBranch">The branch that operation will move when it ends, if it is not <paramref name="Branch"/>.</param>
/// <param name="LockReason">Reason of a worktree lock; null when unlocked.</param>
internal sealed record Checkout(string Path, string GitDirectory, string? Branch, string? Operation, string? OperationBranch, string? LockReason)
{
    /// <summary>True for the main worktree and any other whose folder is there.</summary>
    public bool IsPresent => Directory.Exists(Path) && Posix.Exists(System.IO.Path.Combine(Path, ".git"));
}

/// <summary>Reads worktrees from the repository's files: no process is started, so a landing can look every time.</summary>
internal static class Checkouts
{
    /// <summary>Every registered worktree, the main one first.</summary>
    public static IReadOnlyList<Checkout> Read(Repository repository)
    {
        var result = new List<Checkout> { ReadOne(repository.Root, repository.CommonDirectory) };
        var folder = Path.Combine(repository.CommonDirectory, "worktrees");
        if (!Directory.Exists(folder))
            return result;
        foreach (var directory in Directory.GetDirectories(folder).Order(StringComparer.Ordinal))
        {
            var back = Path.Combine(directory, "gitdir");
            if (!File.Exists(back))
                continue;
            var link = Path.GetFullPath(File.ReadAllText(back).TrimEnd('\n'), directory);
            result.Add(ReadOne(Path.GetDirectoryName(link) ?? link, directory));
        }
        return result;
    }

    /// <summary>
    /// The user's checkouts that follow a branch, or that will move it when an unfinished operation ends. An attempt's worktree is
    /// never one, whatever the agent checked out there: it must neither hold a landing nor be changed by one.
    /// </summary>
    public static IReadOnlyList<Checkout> Of(Repository repository, string branch) =>
        [.. Read(repository).Where(c => (c.Branch == branch || c.OperationBranch == branch) && !IsAttempt(c))];

    /// <summary>True for a worktree that Drover made.</summary>
    public static bool IsAttempt(Checkout checkout) =>
        AttemptName.Parse(Path.GetFileName(checkout.Path)) is not null && Path.GetFileName(checkout.GitDirectory).StartsWith("task-", StringComparison.Ordinal);

    /// <summary>Log lines of a git directory's HEAD, oldest first: only what was done in that worktree.</summary>
    public static IReadOnlyList<string> HeadLog(string gitDirectory) => ReadLines(Path.Combine(gitDirectory, "logs", "HEAD"));

    /// <summary>Log lines of a ref, oldest first; those of a move made in a worktree are the same as in its HEAD log.</summary>
    public static IReadOnlyList<string> RefLog(Repository repository, string name) => ReadLines(Path.Combine(repository.CommonDirectory, "logs", name));

    /// <summary>The new value a log line records; null for a line that is none.</summary>
    public static string? NewOid(string logLine) => logLine.Length > 81 && logLine[40] == ' ' ? logLine[41..81] : null;

    /// <summary>What HEAD of a git directory says: a branch, or a commit when detached.</summary>
    public static (string? Branch, string? Oid) Head(string gitDirectory)
    {
        var file = new FileInfo(Path.Combine(gitDirectory, "HEAD"));
        // Very old git made HEAD a symbolic link to the branch.
        if (file.LinkTarget is { } link)
            return (link.Replace('\\', '/'), null);
        if (!file.Exists)
            return (null, null);
        // One line only: the text goes to git as one expression.
        var text = File.ReadAllText(file.FullName).Split('\n')[0].TrimEnd();
        return text.StartsWith("ref:", StringComparison.Ordinal) ? (text[4..].Trim(), null) : (null, text);
    }

    /// <summary>The git directory a worktree's <c>.git</c> file points to; null when there is none.</summary>
    public static string? GitDirectoryOf(string worktree)
    {
        var file = Path.Combine(worktree, ".git");
        if (new FileInfo(file) is not { Exists: true, LinkTarget: null, Length: < 8192 })
            return null;
        var text = File.ReadAllText(file).TrimEnd('\n');
        return text.StartsWith("gitdir: ", StringComparison.Ordinal) ? Path.GetFullPath(text[8..], worktree) : null;
    }

    private static Checkout ReadOne(string path, string directory)
    {
        var locked = Path.Combine(directory, "locked");
        var (operation, branch) = Unfinished(directory);
        return new Checkout(path, directory, Head(directory).Branch, operation, branch, File.Exists(locked) ? File.ReadAllText(locked).TrimEnd() : null);
    }

    private static (string? Operation, string? Branch) Unfinished(string directory)
    {
        foreach (var name in (string[])["rebase-merge", "rebase-apply"])
        {
            var folder = Path.Combine(directory, name);
            if (Directory.Exists(folder))
                return ("rebase", ReadLine(Path.Combine(folder, "head-name")));
        }
        foreach (var (file, name) in ((string, string)[])[("MERGE_HEAD", "merge"), ("CHERRY_PICK_HEAD", "cherry-pick"), ("REVERT_HEAD", "revert")])
        {
            if (File.Exists(Path.Combine(directory, file)))
                return (name, null);
        }
        if (ReadLine(Path.Combine(directory, "BISECT_START")) is { } start)
            return ("bisect", "refs/heads/" + start);
        return (null, null);
    }

    private static string[] ReadLines(string file) => File.Exists(file) ? File.ReadAllLines(file) : [];

    private static string? ReadLine(string file) => File.Exists(file) ? File.ReadAllText(file).TrimEnd() : null;
}
