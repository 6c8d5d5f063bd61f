using System.Globalization;
using System.Text;

namespace Drover.Orchestrator.CodingAgents;

/// <summary>One line of the process table. A class on purpose: collections of it need no compilation in the keeper's start.</summary>
internal sealed record ProcessEntry(int Pid, int Parent, int Session, char State, long StartTicks)
{
    /// <summary>Zombies hold a number and nothing else.</summary>
    internal bool IsDead => State is 'Z' or 'X' or 'x';
}

/// <summary>Reads /proc. A process that ends while it is read counts as absent; one of another user has no readable environment.</summary>
internal static class ProcessTable
{
    /// <summary>Set in everything a contained process starts; what a sweep looks for.</summary>
    internal const string TokenName = "DROVER_RUN_TOKEN";

    /// <summary>The same for the keeper itself, under another name so that the keeper's own sweep does not find it.</summary>
    internal const string KeeperTokenName = "DROVER_KEEPER_TOKEN";

    internal static ProcessEntry? Read(int pid)
    {
        var text = Native.ReadFile($"/proc/{pid}/stat");
        if (text is null)
            return null;
        var stat = Encoding.ASCII.GetString(text);
        var end = stat.LastIndexOf(')'); // the name before it may contain anything, blanks and brackets too
        if (end < 0)
            return null;
        var fields = stat[(end + 2)..].Split(' ');
        return fields.Length > 19
            ? new(pid, Number(fields[1]), Number(fields[3]), fields[0][0], long.Parse(fields[19], CultureInfo.InvariantCulture))
            : null;
    }

    internal static List<ProcessEntry> ReadAll()
    {
        var all = new List<ProcessEntry>();
        foreach (var folder in Directory.EnumerateDirectories("/proc"))
        {
            if (int.TryParse(Path.GetFileName(folder), NumberStyles.None, CultureInfo.InvariantCulture, out var pid) && Read(pid) is { } entry)
                all.Add(entry);
        }
        return all;
    }

    /// <summary>Everything below <paramref name="root"/> (itself excluded) and everything that carries <paramref name="token"/>, with what is below that; the living only.</summary>
    internal static List<ProcessEntry> TreeOf(int root, string token) =>
        Closure(ReadAll(), entry => entry.Parent == root || Carries(entry.Pid, token, TokenName), root);

    /// <summary>The living processes that carry the token as contained process or as keeper, and all their descendants.</summary>
    internal static List<ProcessEntry> CarriersOf(string token) =>
        Closure(ReadAll(), entry => Carries(entry.Pid, token, TokenName, KeeperTokenName), Environment.ProcessId);

    /// <summary>The living members of a session, and a process's descendants.</summary>
    internal static List<ProcessEntry> SessionOf(int leader) =>
        Closure(ReadAll(), entry => entry.Pid == leader || entry.Session == leader, Environment.ProcessId);

    private static List<ProcessEntry> Closure(List<ProcessEntry> all, Func<ProcessEntry, bool> belongs, int except)
    {
        var found = new Dictionary<int, ProcessEntry>();
        foreach (var entry in all)
        {
            if (entry.Pid != except && !entry.IsDead && belongs(entry))
                found[entry.Pid] = entry;
        }
        // A dead parent's children have another parent already, so walking living parents is enough.
        for (var grown = true; grown;)
        {
            grown = false;
            foreach (var entry in all)
            {
                if (entry.Pid != except && !entry.IsDead && found.ContainsKey(entry.Parent) && found.TryAdd(entry.Pid, entry))
                    grown = true;
            }
        }
        return [.. found.Values];
    }

    private static bool Carries(int pid, string token, params ReadOnlySpan<string> names)
    {
        var environment = Native.ReadFile($"/proc/{pid}/environ").AsSpan();
        foreach (var name in names)
        {
            var wanted = Encoding.UTF8.GetBytes($"{name}={token}\0");
            for (int at = 0, found; (found = environment[at..].IndexOf(wanted)) >= 0; at += found + 1)
            {
                if (at + found == 0 || environment[at + found - 1] == 0)
                    return true;
            }
        }
        return false;
    }

    private static int Number(string text) => int.Parse(text, CultureInfo.InvariantCulture);
}
