using System.Text;
using Drover.Workflows;

namespace Drover.Orchestrator.Git;

/// <summary>
/// Refuses, by name and before the first task, the kinds of repositories whose bytes Drover would not handle right. Every
/// refusal says what was found and what the user can do.
/// </summary>
internal static class Preflight
{
    /// <summary>Looks at the whole repository and the target's tree.</summary>
    /// <exception cref="DroverException">InvalidInput, naming the kind.</exception>
    public static async Task CheckAsync(Repository repository, string target, CancellationToken cancellationToken)
    {
        var settings = repository.Settings;
        if (repository.ObjectFormat != "sha1")
            throw Refuse(repository, $"is a {repository.ObjectFormat} repository; drover supports sha1 repositories only");
        if (repository.IsShallow)
            throw Refuse(repository, "is a shallow clone; run `git fetch --unshallow` first");
        if (settings.Get("extensions.partialclone") is not null || settings.All.Any(s => s.Key.StartsWith("remote.", StringComparison.Ordinal)
            && (s.Key.EndsWith(".promisor", StringComparison.Ordinal) || s.Key.EndsWith(".partialclonefilter", StringComparison.Ordinal))))
            throw Refuse(repository, "is a partial clone (objects are missing here); make a full clone");
        CheckSettings(repository, target);
        CheckOperations(repository, target);
        var refs = await repository.ResolveAsync([target + "^{tree}", "refs/heads/drover"], cancellationToken).ConfigureAwait(false);
        if (refs[1] is not null)
            throw Refuse(repository, "has a branch named 'drover', which leaves no room for drover/<task> branches; rename it with `git branch -m drover <other>`");
        var tree = refs[0] ?? throw new DroverException(ErrorCode.NotFound, $"{target} does not exist in {repository.Root}");
        await CheckTreeAsync(repository, tree, cancellationToken).ConfigureAwait(false);
    }

    private static void CheckSettings(Repository repository, string target)
    {
        var settings = repository.Settings;
        if (settings.IsOn("core.sparsecheckout") || Checkouts.Of(repository, target).Any(IsSparse))
            throw Refuse(repository, "is a sparse checkout; run `git sparse-checkout disable` first");
        if (settings.IsOn("core.splitindex"))
            throw Refuse(repository, "uses a split index; run `git config core.splitIndex false && git update-index --no-split-index` first");
        if (settings.IsOn("core.ignorecase"))
            throw Refuse(repository, "has core.ignorecase on: renames that change only the case of a name would be lost; use a case-sensitive folder and `git config core.ignorecase false`");
        if (settings.IsOn("commit.gpgsign"))
            throw Refuse(repository, "has commit.gpgsign set and drover does not sign yet; run `git config commit.gpgsign false` in this repository, or sign by hand later");
        foreach (var (file, text) in ((string, string)[])[("info/attributes", settings.InfoAttributes), ("the global attributes file", settings.AttributesFile)])
        {
            if (FilterOf(text) is { } filter)
                throw Refuse(repository, FilterText(file, filter));
        }
    }

    private static void CheckOperations(Repository repository, string target)
    {
        foreach (var checkout in Checkouts.Of(repository, target))
        {
            if (checkout.Operation is { } operation)
                throw Refuse(repository, $"has an unfinished {operation} in {checkout.Path} on {Short(target)}; finish or abort it (`git {operation} --abort`)");
        }
    }

    private static async Task CheckTreeAsync(Repository repository, string tree, CancellationToken cancellationToken)
    {
        var scope = repository.Hermetic.Scope();
        var list = await repository.Git.RunAsync(scope, ["ls-tree", "-r", "-z", "--full-tree", tree], cancellationToken).ConfigureAwait(false);
        var attributes = new List<(string Path, string Oid)>();
        var folded = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
        foreach (var entry in list.Fields())
        {
            // "<mode> <type> <oid>\t<path>"
            var path = entry[(entry.IndexOf('\t', StringComparison.Ordinal) + 1)..];
            var name = path[(path.LastIndexOf('/') + 1)..];
            if (entry.StartsWith("160000", StringComparison.Ordinal) || path == ".gitmodules")
                throw Refuse(repository, $"has submodules ({Show(path)}), which drover does not support yet");
            if (path.Contains('\uFFFD', StringComparison.Ordinal))
                throw Refuse(repository, $"has a file name that is not UTF-8 ({Show(path)}); rename it");
            CheckCase(repository, folded, path);
            if (name == ".gitattributes" && entry.StartsWith("100", StringComparison.Ordinal))
                attributes.Add((path, entry.Split(' ', '\t')[2]));
        }
        if (attributes.Count == 0)
            return;
        var texts = await BlobsAsync(repository, [.. attributes.Select(a => a.Oid)], cancellationToken).ConfigureAwait(false);
        for (var i = 0; i < attributes.Count; i++)
        {
            if (FilterOf(Encoding.UTF8.GetString(texts[i] ?? [])) is { } filter)
                throw Refuse(repository, FilterText(Show(attributes[i].Path), filter));
        }
    }

    /// <summary>Contents of blobs by one process; null for a missing one. Ids or <c>tree:path</c> without line ends.</summary>
    public static async Task<byte[]?[]> BlobsAsync(Repository repository, IReadOnlyList<string> names, CancellationToken cancellationToken)
    {
        var input = Encoding.UTF8.GetBytes(string.Concat(names.Select(n => n + "\n")));
        var answer = await repository.Git.RunAsync(repository.Hermetic.Scope(), ["cat-file", "--batch"], input, cancellationToken).ConfigureAwait(false);
        var result = new byte[]?[names.Count];
        var rest = answer.Output.AsSpan();
        for (var i = 0; i < names.Count; i++)
        {
            var end = rest.IndexOf((byte)'\n');
            var head = Encoding.UTF8.GetString(rest[..end]).Split(' ');
            rest = rest[(end + 1)..];
            if (head is not [_, _, var size] || !int.TryParse(size, out var length) || head[^1] == "missing")
                continue;
            result[i] = rest[..length].ToArray();
            rest = rest[(length + 1)..];
        }
        return result;
    }

    // Folders count too: "Src/a" and "src/b" cannot live side by side on a case-insensitive disk.
    private static void CheckCase(Repository repository, Dictionary<string, string> folded, string path)
    {
        for (var at = path.Length; at > 0; at = path.LastIndexOf('/', at - 1))
        {
            var part = path[..at];
            if (folded.TryGetValue(part, out var other))
            {
                if (other != part)
                    throw Refuse(repository, $"has two paths that differ only in case ({Show(other)}, {Show(part)}); rename one");
                if (at != path.Length)
                    return;
            }
            else
            {
                folded.Add(part, part);
            }
        }
    }

    private static bool IsSparse(Checkout checkout)
    {
        var file = Path.Combine(checkout.GitDirectory, "config.worktree");
        return File.Exists(file) && File.ReadAllLines(file).Any(l => l.Replace(" ", "", StringComparison.Ordinal).Trim().Equals("sparseCheckout=true", StringComparison.OrdinalIgnoreCase));
    }

    /// <summary>The first filter an attributes file names, or null. Unset ones (<c>-filter</c>) do not count.</summary>
    internal static string? FilterOf(string text)
    {
        foreach (var line in text.Split('\n'))
        {
            if (line.TrimStart().StartsWith('#'))
                continue;
            foreach (var word in line.Split((char[])[' ', '\t', '\r'], StringSplitOptions.RemoveEmptyEntries).Skip(1))
            {
                if (word.StartsWith("filter=", StringComparison.Ordinal))
                    return word["filter=".Length..];
            }
        }
        return null;
    }

    private static string FilterText(string file, string filter) => filter == "lfs"
        ? $"uses git LFS ({file}), which drover does not support yet"
        : $"uses the content filter '{Show(filter)}' ({file}); drover runs no filters";

    private static string Short(string target) => target.StartsWith("refs/heads/", StringComparison.Ordinal) ? target["refs/heads/".Length..] : target;

    private static string Show(string path) => new([.. path.Take(200).Select(c => char.IsControl(c) ? '?' : c)]);

    private static DroverException Refuse(Repository repository, string what) => new(ErrorCode.InvalidInput, $"{repository.Root} {what}");
}
